"""One machine: embedded servers, workers, data directory, and what is told of them."""
