"""What an operator may say, and how it is read (spec/configuration)."""
