"""A stripe that a client cannot put is refused before anything is sent."""

import pytest

from tensorage.client.upload import check_fits
from tensorage.errors import UsageError


@pytest.mark.parametrize("code", [(200, 200), (1, 256), (10, 200)], ids=str)
def test_a_code_that_is_too_wide_is_refused_with_what_can_be_taken(code):
    with pytest.raises(UsageError, match="Take at most"):
        check_fits(*code)


def test_the_widest_and_the_default_are_taken():
    check_fits(10, 20)
    check_fits(128, 128)
