"""Records in, text out: a file each."""
