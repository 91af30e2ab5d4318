"""The commands of the proof, which the command line hooks in."""
