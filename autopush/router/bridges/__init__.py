"""What the bridges say of themselves: a small module each, which brings none of their libraries."""
