"""What pages look like: tables, figures, explorer."""
