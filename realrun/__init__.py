"""realrun: the schedules of simdep, run for real with torch.distributed, measured, and compared
with the prediction."""
