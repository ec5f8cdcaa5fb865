"""Date normalisation: dates as people write them to ISO 8601, "3rd of May, 2009" to "2009-05-03"."""

from collections.abc import Iterator
from datetime import date, timedelta
from functools import cached_property
from string import Formatter

import torch

from visattn.studies.sequences.tasks import Batch, Split
from visattn.vocabulary import END, PAD, SPECIALS, START

# Years of two digits mean 1969 to 2068, as in POSIX.
FIRST, LAST = date(1969, 1, 1), date(2068, 12, 31)
UNSEEN = 3000  # days that no training sequence has

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# A month comes before the day after slashes, and after it between points. The part before a colon says what the target
# takes from a field, the part after it how it is written.
FORMATS = (
    "{day:th} of {month:name}, {year}",
    "the {day:th} of {month:name} {year}",
    "{day} {month:name} {year}",
    "{day:00}-{month:short}-{year:00}",
    "{month:name} {day}, {year}",
    "{month:name} {day:th} {year}",
    "{month:short} {day} {year:00}",
    "{weekday:short} {day} {month:short} {year}",
    "{weekday:name}, {month:name} {day}, {year}",
    "{year}, {month:name} {day}",
    "{day}.{month}.{year}",
    "{day:00}.{month:00}.{year:00}",
    "{month}/{day}/{year}",
)


def ordinal(day: int) -> str:
    """A number with the ending of its ordinal: 1st, 2nd, 3rd, 11th."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th") if day // 10 != 1 else "th"
    return f"{day}{ending}"


def parts(day: date, layout: str) -> Iterator[tuple[str, str | None]]:
    """A written date in pieces, each with the name of its field, or None if it is fixed text."""
    names = {"month": MONTHS[day.month - 1], "weekday": WEEKDAYS[day.weekday()]}
    for fixed, field, form, _ in Formatter().parse(layout):
        if fixed:
            yield fixed, None
        if field in names and form in ("name", "short"):
            yield names[field][: 3 if form == "short" else None], field
        elif field is not None:
            number = getattr(day, field)
            yield {"": str(number), "00": f"{number % 100:02}", "th": ordinal(number)}[form or ""], field


class Dates:
    """Sequences are dates in one of `FORMATS`, targets the same in ISO 8601, symbol by symbol.

    The days of the splits are disjoint. The truth of a digit is the whole field that it comes from: with "May 3 09",
    "May" for each digit of the month. Hyphens have none.
    """

    title = "Dates into ISO 8601"
    source = "".join(sorted(set(" ,-./0123456789" + "the of st nd rd th" + "".join(MONTHS + WEEKDAYS))))
    target = "0123456789-"
    longest = len("Wednesday, September 28, 2022")
    _fields = ("year",) * 4 + (None,) + ("month",) * 2 + (None,) + ("day",) * 2

    @cached_property
    def days(self) -> dict[Split, torch.Tensor]:
        """The days of each split, counted from the first."""
        order = torch.randperm((LAST - FIRST).days + 1, generator=torch.Generator().manual_seed(0))
        return {"test": order[:UNSEEN], "train": order[UNSEEN:]}

    def batch(self, count: int, generator: torch.Generator, split: Split = "train") -> Batch:
        """See `Task.batch`."""
        pool = self.days[split]
        chosen = pool[torch.randint(len(pool), (count,), generator=generator)].tolist()
        layouts = torch.randint(len(FORMATS), (count,), generator=generator).tolist()
        return self.written(
            [(FIRST + timedelta(days=day), FORMATS[layout]) for day, layout in zip(chosen, layouts, strict=True)]
        )

    def written(self, dates: list[tuple[date, str]]) -> Batch:
        """The batch of dates, each with its format."""
        size, longest = len(self._fields), self.longest
        source = torch.zeros(len(dates), longest, dtype=torch.long)
        mask = torch.zeros(len(dates), longest, dtype=torch.bool)
        truth = torch.zeros(len(dates), size, longest, dtype=torch.bool)
        tokens = torch.full((len(dates), size + 2), PAD)
        tokens[:, 0], tokens[:, -1] = START, END
        for row, (day, layout) in enumerate(dates):
            place = 0
            for text, field in parts(day, layout):
                end = place + len(text)
                source[row, place:end] = torch.tensor([self.source.index(symbol) for symbol in text])
                if field is not None:
                    owners = [t for t, name in enumerate(self._fields) if name == field]
                    truth[row, owners, place:end] = True
                place = end
            mask[row, :place] = True
            iso = [len(SPECIALS) + self.target.index(symbol) for symbol in day.isoformat()]
            tokens[row, 1:-1] = torch.tensor(iso)
        return Batch(source, mask, tokens, truth)
