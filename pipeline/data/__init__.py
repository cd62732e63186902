"""Token shards to batches: functions of (seed, epoch, sample) alone."""
