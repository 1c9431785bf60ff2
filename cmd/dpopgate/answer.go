package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
)

// answer is what a response says about itself.
type answer struct {
	Status      string `json:"-"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
	RequestID   string `json:"request_id"`
}

// Parameters of a challenge, as the gateway and others like it spell them (RFC 6750 §3).
var (
	errorParameter       = regexp.MustCompile(`[ ,]error="([^"]*)"`)
	descriptionParameter = regexp.MustCompile(`[ ,]error_description="([^"]*)"`)
)

// readAnswer reads the JSON of a refusal, or else its challenge.
func readAnswer(res *http.Response, body []byte) answer {
	var a answer
	if json.Unmarshal(body, &a) != nil {
		a = answer{}
	}
	for _, challenge := range res.Header.Values("WWW-Authenticate") {
		if a.Error == "" {
			a.Error = submatch(errorParameter, challenge)
			a.Description = submatch(descriptionParameter, challenge)
		}
	}
	a.Status = res.Status
	return a
}

func submatch(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// String is the answer in one line that is safe on a terminal, whatever the server sent.
func (a answer) String() string {
	s := a.Status
	if a.Error != "" {
		s += ": " + a.Error
	}
	if a.Description != "" {
		s += ": " + a.Description
	}
	if a.RequestID != "" {
		s += " (request " + a.RequestID + ")"
	}
	return visible(s)
}

// visible replaces what a terminal would act on.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
