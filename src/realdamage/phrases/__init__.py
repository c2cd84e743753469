"""The sentences that users read, with their named values."""
