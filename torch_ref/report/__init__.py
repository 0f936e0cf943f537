"""The parity report: run the cases, and show what was found in the terminal, as JSON, Markdown or a page."""
