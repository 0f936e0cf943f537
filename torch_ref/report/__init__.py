"""The parity report: runs the cases and shows the results in the terminal, as JSON, Markdown or HTML."""
