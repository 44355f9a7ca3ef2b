"""Settings that look for the variables of an environment only if it has some.

For each source of variables Pydantic analyzes the types of all fields, each time that settings are made: that took a
tenth of the time of a short test. Other processes, such as the workers and the example, run Pydantic as it is; so does
`make test THOROUGH=1`.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_settings import EnvSettingsSource, PydanticBaseSettingsSource
from pydantic_settings.sources import PydanticBaseEnvSettingsSource

_read = PydanticBaseEnvSettingsSource.__call__


def read_variables(source: PydanticBaseSettingsSource) -> dict[str, Any]:
    """Return the values of the fields, as Pydantic does; nothing if no variable has the prefix of the settings."""
    assert isinstance(source, PydanticBaseEnvSettingsSource)
    if isinstance(source, EnvSettingsSource) and source.env_prefix:
        prefix = source._apply_case_sensitive(source.env_prefix)
        has_aliases = any(field.validation_alias for field in source.settings_cls.model_fields.values())
        if not has_aliases and not any(name.startswith(prefix) for name in source.env_vars):
            return {}
    return _read(source)


def skip_empty_environments(patch: pytest.MonkeyPatch) -> None:
    """Make settings look for no variable that cannot exist."""
    patch.setattr(PydanticBaseEnvSettingsSource, "__call__", read_variables)
