"""What an answer costs, exact."""

from gateway.core.pricing.kinds import KINDS, faults
from gateway.core.pricing.meter import Meter, Prices, micro, nano
from gateway.core.pricing.price import Price, cost_usd, lacks, parts_of, price_of, shown

__all__ = [
    "KINDS",
    "Meter",
    "Price",
    "Prices",
    "cost_usd",
    "faults",
    "lacks",
    "micro",
    "nano",
    "parts_of",
    "price_of",
    "shown",
]
