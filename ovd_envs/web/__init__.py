"""Reading the web: fetching pages safely, and the text that is in them."""
