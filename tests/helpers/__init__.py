"""Provide what the tests share: an installation in a folder, faults, the three load paths."""
