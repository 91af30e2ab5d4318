"""The microservices, one file each; none imports another."""
