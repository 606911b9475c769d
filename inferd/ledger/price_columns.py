"""A price as the columns of a hold or a usage row: what admission promised, kept with the request (BILLING R12)."""

from __future__ import annotations

from typing import Any

from inferd.price import PPM, Price

PRICE_COLUMNS = ("input_picousd", "cached_input_picousd", "output_picousd", "compute_picousd", "multiplier_ppm")


def columns_of(price: Price | None) -> dict[str, int | None]:
    """By name; all NULL for a free deployment. NULL is also a multiplier of one, as in rows from before there were any."""
    if price is None:
        return dict.fromkeys(PRICE_COLUMNS)
    return {
        "input_picousd": price.input_picousd,
        "cached_input_picousd": price.cached_input_picousd,
        "output_picousd": price.output_picousd,
        "compute_picousd": price.compute_picousd,
        "multiplier_ppm": None if price.multiplier_ppm == PPM else price.multiplier_ppm,
    }


def price_of(values: Any) -> Price:
    """From the values of PRICE_COLUMNS of a priced row, in their order."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values
    return Price(
        input_picousd,
        output_picousd,
        cached_input_picousd,
        compute_picousd,
        PPM if multiplier_ppm is None else multiplier_ppm,
    )


def possible_price(values: Any) -> Price | None:
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
    return price_of(values)
