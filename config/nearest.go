package config

import "strings"

// didYouMean is a hint that names the nearest of the candidates, or nothing when none is near.
func didYouMean(got string, candidates []string) string {
	if best := nearest(got, candidates); best != "" {
		return "did you mean " + best + "?"
	}
	return ""
}

// nearest is the candidate that got is a slip of, or nothing.
func nearest(got string, candidates []string) string {
	best, bestDistance := "", 3
	for _, c := range candidates {
		// A third of the word may be wrong, so that short words do not match everything.
		if d := distance(strings.ToLower(got), strings.ToLower(c)); d < bestDistance && d <= 1+len(c)/3 {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters to add, drop, change or swap with a neighbour to get from a to b.
// Words that are too long to be slips are far from everything.
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
