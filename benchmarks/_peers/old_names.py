"""Gives NumPy back the names that RecBole 1.2.1 asks it for, and that it has no more; import it before RecBole."""

from __future__ import annotations

import numpy as np

for _name, _kind in {"float": float, "int": int, "bool": bool, "object": object}.items():
    if _name not in np.__dict__:
        setattr(np, _name, _kind)
