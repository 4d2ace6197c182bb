"""What must not load the SDK, because its import takes most of a second."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["tensorage.chain", "tensorage.chain.types", "tensorage.chain.address"])
def test_the_records_of_a_chain_come_without_the_sdk(module):
    code = f"import sys, {module}; sys.exit('bittensor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
