"""What all tests share: hypothesis takes no offence at a busy machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# An example may take as long as it likes, and so may the drawing of its data: neither tells
# anything about the code. What each test sets for itself comes on top.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")
