#!/usr/bin/env bash
# SciPy's noncentral t gives more below -13 than below 0, and nan between.
#
# scipy 1.17.1. With one degree of freedom and a noncentrality of 16.3 (a power analysis of two values a group) the
# distribution function at 0 is Phi(-16.3) = 4.9e-60, rightly; further left it must be less. Seen: 7.9e-17 at -13, nan at
# -12 and at -5. So a two-sided power, 1 - cdf(c) + cdf(-c), is nan for some critical values c and not for their
# neighbours; special.nctdtr and stats.nct.cdf agree in it. Expected by most: a monotone function, 0 where it underflows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import math

import scipy
from scipy import special, stats

assert scipy.__version__ == "1.17.1"
places = (-13.0, -12.0, -5.0, 0.0)
found = {x: float(stats.nct.cdf(x, 1, 16.3)) for x in places}
print(found, {x: float(special.nctdtr(1, 16.3, x)) for x in places})
assert math.isclose(found[0.0], stats.norm.cdf(-16.3), rel_tol=1e-6)
assert found[-13.0] > found[0.0], "it grows from left to right now"
assert math.isnan(found[-12.0]) and math.isnan(found[-5.0]), "it is a number now"
PY
