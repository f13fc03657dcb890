"""Measure cutnn beside its peers: python -m bench [case ...] [--device cuda] [--quick] [--list]."""

from __future__ import annotations

import argparse
import json
import sys
import time

from bench.harness import BenchmarkError, case_names, load_case, measure, measure_limits
from bench.machine import host_kind
from bench.report import RESULTS, draw, limits_line, read, table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="case", help="the cases to run; all when none is named")
    parser.add_argument("--quick", action="store_true", help="few rounds, some sizes; nothing is kept")
    parser.add_argument("--threads", type=int, help="threads of every peer; all cores unless said")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where every peer works")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - set(case_names()):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(case_names())}")
    if options.list:
        for name in case_names():
            print(f"{name:<16} {load_case(name).title}")
        return 0
    device = options.device
    limits = measure_limits(device, options.threads)
    if not limits:
        print(f"{device}: no library here can use it; CuPy or PyTorch for CUDA is needed", file=sys.stderr)
        return 1
    print(limits_line(limits), "\n")
    status, kept = 0, False
    for name in options.cases or case_names():
        began = time.perf_counter()
        try:
            result = measure(load_case(name), options.quick, options.threads, device, limits)
        except BenchmarkError as error:
            print(f"{name}: {error}\n", file=sys.stderr)
            status = 1
            continue
        print(table(result), f"({time.perf_counter() - began:.0f} s)\n", sep="\n", flush=True)
        measured = any("skipped" not in size for size in result["sizes"].values())
        if measured and not options.quick:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{name}-{host_kind(device)}.json"
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
            kept = True
    if kept:
        draw(read())
    return status


if __name__ == "__main__":
    sys.exit(main())
