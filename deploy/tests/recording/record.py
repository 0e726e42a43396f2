#!/usr/bin/env python3
"""Scrapes /metrics of operator and agents for a while, as Prometheus would, and keeps the texts.

    record.py FOLDER --every 5 --for 600 operator-NODE=http://10.0.0.1:61682/metrics agent-NODE=http://10.0.0.2:61678/metrics …

A scrape is FOLDER/SECONDS/TARGET.txt, with the Unix time and the name before the `=`. A target that does not answer has no
file for that time. Run it where the targets can be reached. Needs Python 3.9 and nothing else; `series.py` reads the folder.
"""

import argparse
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ACCEPT = "application/openmetrics-text;version=1.0.0"


def target(text: str) -> "tuple[str, str]":
    name, equals, url = text.partition("=")
    if not equals or name.partition("-")[0] not in ("operator", "agent") or not name.partition("-")[2]:
        raise argparse.ArgumentTypeError(f"{text!r} is not operator-NODE=URL or agent-NODE=URL")
    return name, url


def scrape(url: str, timeout: float) -> "bytes | None":
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": ACCEPT}), timeout=timeout) as answer:
            return answer.read()
    except OSError:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("targets", nargs="+", type=target)
    parser.add_argument("--every", type=int, default=5, help="seconds between two scrapes")
    parser.add_argument("--for", dest="length", type=int, default=600, help="seconds in all")
    args = parser.parse_args()
    began = time.time()
    with ThreadPoolExecutor(len(args.targets)) as pool:
        for step in range(args.length // args.every + 1):
            at = began + step * args.every
            time.sleep(max(0.0, at - time.time()))
            texts = pool.map(lambda pair: scrape(pair[1], args.every / 2), args.targets)
            for (name, _), text in zip(args.targets, texts):
                if text is not None:
                    place = args.folder / str(round(at)) / f"{name}.txt"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
