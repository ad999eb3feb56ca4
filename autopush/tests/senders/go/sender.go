// Sends what each line of standard input asks for with the module webpush-go, and answers each with a
// line of what it says. ../programs.py tells what both look like.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"

	"github.com/SherClockHolmes/webpush-go"
)

type order struct {
	Subscription webpush.Subscription `json:"subscription"`
	Vapid        struct{ Public, Private, Subject string }
	Text         string
	TTL          int
	RecordSize   uint32 `json:"record_size"`
}

type report struct {
	Said    string            `json:"said"`
	Status  int               `json:"status,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

func send(wanted order) report {
	answer, err := webpush.SendNotification([]byte(wanted.Text), &wanted.Subscription, &webpush.Options{
		Subscriber:      wanted.Vapid.Subject,
		VAPIDPublicKey:  wanted.Vapid.Public,
		VAPIDPrivateKey: wanted.Vapid.Private,
		TTL:             wanted.TTL,
		RecordSize:      wanted.RecordSize,
	})
	if err != nil {
		return report{Said: err.Error()}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return report{Said: err.Error()}
	}
	headers := map[string]string{}
	for name := range answer.Header {
		headers[strings.ToLower(name)] = answer.Header.Get(name)
	}
	return report{"ok", answer.StatusCode, headers, string(body)}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var wanted order
		if err := json.Unmarshal(lines.Bytes(), &wanted); err != nil {
			panic(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(send(wanted)); err != nil {
			panic(err)
		}
	}
}
