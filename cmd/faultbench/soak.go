package main

import (
	"context"
	"io"
	"time"
)

func (b *bench) soak(ctx context.Context, long time.Duration, stdout io.Writer) error { return nil }
