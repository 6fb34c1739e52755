"""From images and conversations to what the network takes."""
