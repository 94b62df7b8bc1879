"""Running a graph whose cache may be updated in place as callers run any other.

In such a cache the tokens of a sequence begin at its first place, so padding must stand behind them. Callers have it
anywhere: here every sequence is run by itself without its padding, and the results are put back to their columns.
"""

import numpy

from golden import Arrays, Run


def hiding_padding(run: Run) -> Run:
    """`run` for sequences whose padding may stand anywhere. What stands at padded positions is zero."""

    def run_rows(feeds: Arrays) -> Arrays:
        mask = feeds["attention_mask"] == 1
        results: Arrays = {}
        for row in range(len(mask)):
            new = mask[row, mask.shape[1] - feeds["input_ids"].shape[1] :]
            if new.any():
                for name, output in run(alone(feeds, row, mask[row], new)).items():
                    put_back(results, name, output, row, mask, mask[row] if is_cache(name) else new)
        return results

    return run_rows


def is_cache(name: str) -> bool:
    return name.startswith(("present.", "past_key_values."))


def alone(feeds: Arrays, row: int, mask: numpy.ndarray, new: numpy.ndarray) -> Arrays:
    """One sequence without its padding."""
    cached = mask[: len(mask) - len(new)]

    def of(name: str, value: numpy.ndarray) -> numpy.ndarray:
        if is_cache(name):
            return value[row : row + 1][:, :, cached]
        if name == "attention_mask":
            return value[row : row + 1][:, mask]
        return value[row : row + 1][:, new]

    return {name: of(name, value) for name, value in feeds.items()}


def put_back(
    results: Arrays, name: str, output: numpy.ndarray, row: int, mask: numpy.ndarray, columns: numpy.ndarray
) -> None:
    """Puts what one sequence gave to its columns."""
    if is_cache(name):
        output = output.swapaxes(1, 2)  # [1, total, heads, width]
    if name not in results:
        shape = (len(mask), len(columns), *output.shape[2:])
        whole = numpy.zeros(shape, output.dtype)
        results[name] = whole.swapaxes(1, 2) if is_cache(name) else whole
    whole = results[name].swapaxes(1, 2) if is_cache(name) else results[name]
    whole[row, columns] = output[0]
