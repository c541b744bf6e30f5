"""What a server says of its operations: its OpenAPI document, or its source where it publishes none."""

from pytest_qwen.openapi.document import read_document
from pytest_qwen.openapi.endpoints import How, Predict, all_predicts, find_health, find_predict
from pytest_qwen.openapi.routes import from_routes, routes_document
from pytest_qwen.openapi.sanitised import sanitised
from pytest_qwen.openapi.values import Body, Document, NotReadable, Operation, Parameter, Property

__all__ = [
    "Body",
    "Document",
    "How",
    "NotReadable",
    "Operation",
    "Parameter",
    "Predict",
    "Property",
    "all_predicts",
    "find_health",
    "find_predict",
    "from_routes",
    "read_document",
    "routes_document",
    "sanitised",
]
