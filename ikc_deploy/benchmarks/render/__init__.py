"""Reports for people: tables on the terminal, Markdown, one HTML page."""
