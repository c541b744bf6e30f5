"""Where programs that nobody trusts run: the contract, the containers, the images, the attacks on them."""
