package proxy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWhatIsNotTracedCostsNoAllocation(t *testing.T) {
	x := &exchange{}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		x.step(StepCheck)(nil)
		x.try(nil)(nil, nil)
	}))
}
