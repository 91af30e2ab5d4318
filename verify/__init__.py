"""The proof: world, oracle, replay, chaos and simulation. No product room imports it."""
