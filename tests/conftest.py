"""What all tests share."""

import os

from hypothesis import HealthCheck, settings

# One profile everywhere; deadlines measure the machine, not the code.
settings.register_profile("tensorage", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("hunt", parent=settings.get_profile("tensorage"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tensorage"))
