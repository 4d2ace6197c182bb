"""What all tests share."""

import os
import signal

from hypothesis import HealthCheck, settings

# The same examples everywhere and every time; HYPOTHESIS_PROFILE=hunt looks for others. Deadlines measure the
# machine, not the code.
settings.register_profile(
    "tensorage", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "hunt", parent=settings.get_profile("tensorage"), derandomize=False, max_examples=5000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tensorage"))

# A shell that starts us in the background has us ignore SIGINT; our children inherit that, and are sent it.
signal.signal(signal.SIGINT, signal.default_int_handler)
