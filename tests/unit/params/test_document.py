"""What `params.yaml` as a whole refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.errors import ParamsError
from stillhouse.params.document import load_document
from stillhouse.runner.closure import package_root


@pytest.mark.parametrize("weight", [-0.5, float("inf"), float("nan")])
def test_a_weight_that_would_reward_what_is_wrong_is_refused(weight: float, tmp_path: Path) -> None:
    plain: dict[str, Any] = yaml.safe_load((package_root().parent / "params.yaml").read_text())
    plain["event_weights"]["view"] = weight
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(ParamsError, match=r"event_weights\.view"):
        load_document(tmp_path / "params.yaml")
