"""A store's statistics beside the published ones, as tables, plots and a page."""
