"""Comparisons with other software, other devices and earlier versions, which are no tests."""
