"""What the files of a trial's folder are called."""

LAST, WEIGHTS, EPOCHS, REASON = "last.pt", "best.safetensors", "epochs.jsonl", "reason.txt"
