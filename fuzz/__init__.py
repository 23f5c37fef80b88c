"""Hostile input, at random: whatever the bytes, a file is read or refused by a UserError. See README.md."""
