#!/usr/bin/env python3
"""Writes a folder of made-up scrapes, not recorded from anything: three hours of a cluster that ends at the figures of the AWS
plugin's troubleshooting guide, 11,186 of 11,200 addresses on 799 of 800 network interfaces. For pictures and tests, as long
as there is no recording of a real cluster.

    guide.py FOLDER
"""

import random
import sys
from pathlib import Path

START, INTERVAL, STEPS = 1_764_504_000, 60, 181
NODES, ENIS_MAX, ADDRESSES_MAX = 200, 800, 11_200
# Addresses of a /20 that EC2 gives out.
SUBNET = 4_091
ADD_BUCKETS = [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.5, 1.0, 2.0, 5.0, 20.0, 60.0]
EC2_BUCKETS = [0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0, 20.0]
PLAN_BUCKETS = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]


class Histogram:
    def __init__(self, bounds):
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value):
        self.counts[next((at for at, bound in enumerate(self.bounds) if value <= bound), len(self.bounds))] += 1
        self.sum += value

    def lines(self, name, labels=""):
        total = 0
        for bound, count in zip([*self.bounds, "+Inf"], self.counts):
            total += count
            yield f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} {total}'
        tail = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{tail} {self.sum:.6f}"
        yield f"{name}_count{tail} {total}"


def family(kind, name, lines):
    return [f"# TYPE {name} {kind}", *lines]


def gauge(name, value, labels=""):
    return family("gauge", name, [f"{name}{labels} {value}"])


def by(name, label, values):
    return family("gauge", name, [f'{name}{{{label}="{key}"}} {value}' for key, value in values.items()])


class Cluster:
    """The cluster's figures from minute to minute."""

    def __init__(self):
        self.chance = random.Random(1)
        self.counters = dict.fromkeys(
            ("adds", "dels", "vain", "errors", "calls", "failed", "throttles", "reconciled", "writes"), 0
        )
        self.used = 9_000
        self.plan = Histogram(PLAN_BUCKETS)
        self.agents = [Agent(f"ip-10-0-{16 * at}-7", self.chance) for at in range(3)]

    def minute(self, at):
        rising = 45 <= at < 110
        before, wave = self.used, self.chance.randrange(-12, 13)
        self.used = min(11_122, self.used + (32 if rising else 0) + wave)
        new = max(0, self.used - before)
        self.held = min(11_186, max(self.used + (60 if rising else 240), 9_300) if at < 110 else 11_186)
        self.enis = min(799, -(-self.held // 14))
        self.acting = self.chance.randrange(4, 15) if rising else self.chance.randrange(0, 2)
        self.scarce = 96 <= at < 126
        self.waiting = {
            "SubnetExhausted": self.chance.randrange(3, 9) if self.scarce else 0,
            "AssignInFlight": self.chance.randrange(0, 7) if rising else 0,
            "AttachInFlight": self.chance.randrange(0, 3) if rising else 0,
            "Throttled": self.chance.randrange(0, 4) if 70 <= at < 86 else 0,
        }
        throttled = self.chance.randrange(2, 9) if 70 <= at < 86 else 0
        calls = self.chance.randrange(18, 40) if rising else self.chance.randrange(0, 3)
        count = self.counters
        count["adds"] += new + 40
        count["dels"] += 40 + max(0, before - self.used)
        count["vain"] += self.chance.randrange(0, 3) if self.scarce else 0
        count["calls"] += calls
        count["throttles"] += throttled
        count["failed"] += throttled + (self.chance.randrange(1, 5) if self.scarce else 0)
        count["errors"] += self.chance.randrange(0, 3) if self.scarce else 0
        count["reconciled"] += 1 if at in (30, 131) else 0
        count["writes"] += 3 + calls
        self.latency = self.chance.randrange(180, 420) if calls else None
        self.pace = 100 if at < 70 or at > 120 else 50 if at < 88 else 50 + (at - 88) * 50 // 32
        spent = self.held + self.enis
        self.free = {}
        for subnet, share in (("subnet-0a1", 0.341), ("subnet-0b2", 0.333), ("subnet-0c3", 0.326)):
            self.free[subnet] = max(3, SUBNET - int(spent * share))
        # What is left above a headroom of 16, at 11 addresses a minute of each subnet.
        self.runway = {s: max(0, free - 16) * 60 // 11 for s, free in self.free.items()} if 50 <= at < 115 else {}
        self.silent = 1 if 20 <= at < 29 else 0
        for _ in range(6):
            self.plan.observe(self.chance.uniform(0.003, 0.009))
        for agent in self.agents:
            agent.minute(rising, self.scarce, throttled > 0)

    def operator(self):
        count = self.counters
        lines = []
        for name, value in (
            ("maxIPAddresses", ADDRESSES_MAX),
            ("totalIPAddresses", self.held),
            ("assignIPAddresses", self.used),
            ("eniMaxAvailable", ENIS_MAX),
            ("eniAllocated", self.enis),
            ("ipamdActionInProgress", self.acting),
            ("totalIPv4Prefixes", 0),
            ("enipool_cluster_nodes", NODES),
            ("enipool_cluster_silent_nodes", self.silent),
            ("enipool_cluster_pods", self.used + sum(self.waiting.values())),
            ("enipool_cluster_demand", sum(self.waiting.values())),
            ("enipool_cluster_waiting_pods", sum(self.waiting.values())),
            ("enipool_cluster_allocated_addresses", self.held),
            ("enipool_cluster_withheld_addresses", self.waiting["SubnetExhausted"]),
            ("enipool_cluster_available_addresses", max(0, self.held - self.used - 24)),
            ("enipool_cluster_cooling_addresses", 24),
            ("enipool_cluster_leaked_enis", 0),
            ("enipool_operator_leader", 1),
        ):
            lines += gauge(name, value)
        if self.latency:
            lines += gauge("awsAPILatency", self.latency)
        for name, key in (
            ("ipamdErr", "errors"),
            ("addReqCount", "adds"),
            ("delReqCount", "dels"),
            ("ec2ApiReqCount", "calls"),
            ("ec2ApiErrCount", "failed"),
            ("reconcileCount", "reconciled"),
        ):
            lines += family("unknown", name, [f"{name} {count[key]}"])
        for name in ("forceRemoveENI", "forceRemoveIPs"):
            lines += family("unknown", name, [f"{name} 0"])
        for name, key in (("adds_without_address", "vain"), ("ec2_throttles", "throttles")):
            lines += family("counter", f"enipool_cluster_{name}", [f"enipool_cluster_{name}_total {count[key]}"])
        lines += by(
            "enipool_cluster_waiting_pods_by_reason",
            "reason",
            {**dict.fromkeys(["AwaitingTurn", "Cooling"], 0), **self.waiting},
        )
        used = {
            "AssignPrivateIpAddresses": min(95, 6 * self.acting),
            "CreateNetworkInterface": min(90, 4 * self.acting),
        }
        lines += by("enipool_cluster_ec2_budget_used", "action", used)
        lines += by(
            "enipool_cluster_ec2_budget_pace",
            "action",
            {"AssignPrivateIpAddresses": self.pace, "CreateNetworkInterface": 100},
        )
        lines += by("enipool_cluster_subnet_free_addresses", "subnet", self.free)
        lines += by("enipool_cluster_subnet_runway_seconds", "subnet", self.runway) if self.runway else []
        for name, default, gpu in (
            ("nodes", NODES - 12, 12),
            ("addresses", self.held - 500, 500),
            ("assigned_addresses", self.used - 410, 410),
            ("waiting_pods", sum(self.waiting.values()), 0),
        ):
            lines += by(f"enipool_cluster_class_{name}", "class", {"default": default, "gpu": gpu})
        lines += family("histogram", "enipool_operator_plan_seconds", self.plan.lines("enipool_operator_plan_seconds"))
        writes = f'enipool_operator_api_writes_total{{what="enipool",outcome="ok"}} {count["writes"]}'
        lines += family("counter", "enipool_operator_api_writes", [writes])
        requests = "enipool_operator_cloudwatch_requests_total"
        sent = [f'{requests}{{outcome="ok"}} {self.agents[0].minutes}', f'{requests}{{outcome="throttled"}} 0']
        lines += family("counter", "enipool_operator_cloudwatch_requests", sent)
        return lines


class Agent:
    """One node's agent."""

    def __init__(self, node, chance):
        self.node, self.chance, self.minutes = node, chance, 0
        self.adds, self.vain, self.wait = Histogram(ADD_BUCKETS), Histogram(ADD_BUCKETS), Histogram(ADD_BUCKETS)
        self.phases = {phase: Histogram(ADD_BUCKETS) for phase in ("wait", "ledger", "netlink")}
        self.calls = {
            action: Histogram(EC2_BUCKETS) for action in ("AssignPrivateIpAddresses", "CreateNetworkInterface")
        }

    def minute(self, rising, scarce, throttled):
        self.minutes += 1
        self.waiting = self.chance.randrange(0, 3) if scarce else 0
        for _ in range(14 if rising else 6):
            wait = (
                self.chance.uniform(0.4, 3.0) if rising and self.chance.random() < (0.2 if throttled else 0.06) else 0.0
            )
            ledger, netlink = self.chance.uniform(0.0002, 0.0006), self.chance.uniform(0.0011, 0.0035)
            if scarce and self.chance.random() < 0.04:
                wait = self.chance.uniform(5.0, 30.0)
            for phase, took in (("wait", wait), ("ledger", ledger), ("netlink", netlink)):
                self.phases[phase].observe(took)
            self.wait.observe(wait + ledger)
            self.adds.observe(wait + ledger + netlink)
        if scarce and self.chance.random() < 0.1:
            self.vain.observe(45.0)
        for action, histogram in self.calls.items():
            for _ in range(2 if rising else 0):
                histogram.observe(
                    self.chance.uniform(0.15, 1.2 if throttled else 0.5) + (0.3 if action.startswith("Create") else 0)
                )

    def text(self):
        lines = gauge("enipool_serving", 1) + gauge("enipool_addresses_stray", 0)
        lines += gauge("enipool_addresses_available", 0 if self.waiting else self.chance.randrange(1, 15))
        lines += by("enipool_waiting_pods", "reason", {"subnet_exhausted": self.waiting}) if self.waiting else []
        outcomes = [
            *self.adds.lines("enipool_cni_add_seconds", 'outcome="success"'),
            *self.vain.lines("enipool_cni_add_seconds", 'outcome="no_address"'),
        ]
        lines += family("histogram", "enipool_cni_add_seconds", outcomes)
        phases = [
            line
            for phase, histogram in self.phases.items()
            for line in histogram.lines("enipool_cni_add_phase_seconds", f'phase="{phase}"')
        ]
        lines += family("histogram", "enipool_cni_add_phase_seconds", phases)
        lines += family(
            "histogram", "enipool_time_to_address_seconds", self.wait.lines("enipool_time_to_address_seconds")
        )
        calls = [
            line
            for action, h in self.calls.items()
            for line in h.lines("enipool_ec2_call_seconds", f'action="{action}",outcome="ok"')
        ]
        return lines + family("histogram", "enipool_ec2_call_seconds", calls)


def main(folder):
    cluster = Cluster()
    for at in range(STEPS):
        cluster.minute(at)
        place = folder / str(START + at * INTERVAL)
        place.mkdir(parents=True, exist_ok=True)
        texts = {
            "operator-ip-10-0-0-7": cluster.operator(),
            **{f"agent-{agent.node}": agent.text() for agent in cluster.agents},
        }
        for name, lines in texts.items():
            (place / f"{name}.txt").write_text("\n".join([*lines, "# EOF"]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
