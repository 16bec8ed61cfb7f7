"""The page of a run: what it holds, as JSON values, and the document that shows it."""
