"""How the embedded model was made: its data (`dataset`), its training (`train`) and its measured quality (`evaluate`)."""
