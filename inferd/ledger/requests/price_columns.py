"""A price as the columns of a hold or a usage row: what admission promised, kept with the request (BILLING R12)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from inferd.price import PPM, Price

PRICE_COLUMNS = ("input_picousd", "cached_input_picousd", "output_picousd", "compute_picousd", "multiplier_ppm")


Values = tuple[int | None, int | None, int | None, int | None, int | None]


def values_of(price: Price | None) -> Values:
    """Those of PRICE_COLUMNS; all NULL for a free deployment. A multiplier of one is NULL too, as in rows of before."""
    if price is None:
        return None, None, None, None, None
    multiplier_ppm = None if price.multiplier_ppm == PPM else price.multiplier_ppm
    return (
        *(price.input_picousd, price.cached_input_picousd, price.output_picousd, price.compute_picousd),
        multiplier_ppm,
    )


@lru_cache(maxsize=256)
def price_of(values: Values) -> Price:
    """From the values of PRICE_COLUMNS of a priced row. Few different ones are asked for, each at every settlement."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values
    assert input_picousd is not None, "a priced row has both prices of tokens"
    assert output_picousd is not None, "a priced row has both prices of tokens"
    return Price(
        input_picousd,
        output_picousd,
        cached_input_picousd,
        compute_picousd,
        PPM if multiplier_ppm is None else multiplier_ppm,
    )


def possible_price(values: Sequence[int | None]) -> Price | None:
    """The same for a row that somebody may have changed; None for a free row, or for columns that no price has."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values
    if input_picousd is None or output_picousd is None or min(input_picousd, output_picousd) < 0:
        return None
    if cached_input_picousd is not None and not 0 <= cached_input_picousd <= input_picousd:
        return None
    if multiplier_ppm is not None and multiplier_ppm < 0:
        return None
    if compute_picousd is not None and (compute_picousd < 0 or input_picousd or output_picousd):
        return None
    return price_of((input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm))
