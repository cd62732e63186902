"""Fine-tuning: a pretrained encoder on MNLI and SQuAD, its predictions, and the scorecard of all of them."""
