//! Gathers the engine's report for the endpoint's heartbeat.

use std::collections::BTreeMap;

use super::Driver;
use crate::node;
use crate::report::{NodeInfo, Report};

impl Driver {
    pub(super) fn report(&self) -> Report {
        let options = &self.config.options;
        let (blocks, traits) = (&options.provider.blocks, options.kind.traits());
        let (counts, now) = (self.core.counts(), self.clock.now());
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let mut node_info: BTreeMap<String, Vec<NodeInfo>> = BTreeMap::new();
        let starting = number(self.core.starting_count() as u64);
        let mut active = 0;
        for (key, block, slots, idle_since) in self.core.nodes() {
            active += 1;
            let interpreter = self.nodes.get(&key).and_then(|connected| connected.interpreter.as_ref());
            let job = self.calls.job_of(block).map_or_else(String::new, |job| job.0.clone());
            node_info.entry(job).or_default().push(NodeInfo {
                worker_count: slots,
                idle_duration: idle_since.map_or(0.0, |since| now.saturating_sub(since).as_secs_f64()),
                parsl_version: None,
                endpoint_version: env!("CARGO_PKG_VERSION").to_owned(),
                sdk_version: interpreter.and_then(|interpreter| interpreter.sdk.clone()),
                python_version: interpreter.map(|interpreter| interpreter.python.clone()),
            });
        }
        Report {
            managers: active + starting,
            active_managers: active,
            starting_managers: starting,
            total_workers: number(counts.slots),
            idle_workers: number(counts.slots - counts.busy),
            pending_tasks: counts.waiting as u64,
            outstanding_tasks: counts.outstanding as u64,
            total_tasks: counts.accepted,
            scaling_enabled: traits.has_blocks && blocks.max_blocks > 0,
            mem_per_worker: options.mem_per_worker,
            cores_per_worker: options.cores_per_worker,
            prefetch_capacity: options.prefetch_capacity,
            max_blocks: blocks.max_blocks,
            min_blocks: blocks.min_blocks,
            max_workers_per_node: options.max_workers_per_node,
            nodes_per_block: blocks.nodes_per_block,
            node_info,
            engine_type: options.kind.name(),
            provider_type: options.provider.name(),
            queue: self.calls.queue(),
            account: self.calls.account(),
            last_block_failure: self.core.last_block_failure(),
            slots_missing: self.nodes.values().filter_map(|connected| connected.shortage.clone()).min(),
            machine: (!traits.has_blocks).then(node::machine_info),
        }
    }
}
