"""Detection in a stream as it comes, and a page that shows it."""
