#!/usr/bin/env python3
"""Golden values of EASE^R and of ALS half-steps in NumPy, written from the papers: what tests/train/test_wals.c and
test_ease.c compare ours with. Nothing here is shared with the C code: weights are spelled out as whole matrices.

    /usr/bin/python3 tests/golden/baselines.py       (Debian: python3-numpy; writes baselines.json beside itself)
"""
import json
import os

import numpy as np

N_USERS, N_ITEMS, K = 9, 7, 3
EASE_LAMBDA, W0, LAMBDA = 2.5, 0.1, 0.03


def half_step(x, fixed):
    """Hu, Koren, Volinsky (2008), eq. (4): (Y' C_u Y + penalty I)^-1 Y' C_u p_u, C_u = diag(1 where seen, w0 elsewhere)."""
    out = np.zeros((x.shape[0], fixed.shape[1]))
    for u, row in enumerate(x):
        if row.sum() == 0:
            continue
        c = np.diag(np.where(row > 0, 1.0, W0))
        penalty = LAMBDA * (row.sum() + W0 * len(row))
        out[u] = np.linalg.solve(fixed.T @ c @ fixed + penalty * np.eye(fixed.shape[1]), fixed.T @ c @ row)
    return out


def main():
    rng = np.random.default_rng(7)
    x = (rng.random((N_USERS, N_ITEMS)) < 0.4).astype(float)
    x[4] = 0
    p = np.linalg.inv(x.T @ x + EASE_LAMBDA * np.eye(N_ITEMS))
    b = p / -np.diag(p)  # column j divided by P_jj
    np.fill_diagonal(b, 0)
    item = rng.normal(size=(N_ITEMS, K)).astype(np.float32).astype(float)
    user = half_step(x, item)
    golden = {
        "seen": [[int(i) for i in np.flatnonzero(row)] for row in x], "n_items": N_ITEMS, "k": K,
        "ease_lambda": EASE_LAMBDA, "ease_b": b.tolist(), "ease_scores": (x @ b).tolist(),
        "w0": W0, "lambda": LAMBDA, "item": item.tolist(), "user_after": user.tolist(),
        "item_after": half_step(x.T, user).tolist(),
    }
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "baselines.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")


if __name__ == "__main__":
    main()
