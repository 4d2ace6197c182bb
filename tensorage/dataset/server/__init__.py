"""The gated HTTP server of a dataset. `app.create_app` makes it, `service.Service` runs it."""
