"""The dataset market: owners sign versions of a dataset and sell access; buyers verify what they fetch."""
