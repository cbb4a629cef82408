"""The worker refuses an environment in which another distribution owns one of our names."""

import pytest

from failback.errors import SettingsInvalid
from failback.ownership import check_ownership


def test_a_second_owner_is_named() -> None:
    owners = {"workflows": ["failback", "some-workflows"], "failback": ["failback"]}

    with pytest.raises(SettingsInvalid, match="'workflows' is also installed by some-workflows"):
        check_ownership(owners)


def test_this_environment_is_ours_alone() -> None:
    check_ownership()
