CHAT='{"model": "parrot-1", "messages": [{"role": "user", "content": "Polly wants a cracker"}]}'
MANY_WORDS=$(seq -s ' ' 500)
LONG_CHAT='{"model": "parrot-1", "stream": true, "max_tokens": 500,
  "messages": [{"role": "user", "content": "'$MANY_WORDS'"}]}'

# create a key, and name it after the place where it is used
CREATED=$(curl -s $URL/api-keys -H "Authorization: Bearer $SESSION" -H 'Content-Type: application/json' \
  -d '{"name": "prod-api-server"}')
ID=$(echo "$CREATED" | sed -E 's/.*"id":"([^"]+)".*/\1/')
OLD=$(echo "$CREATED" | sed -E 's/.*"token":"([^"]+)".*/\1/')

# rotate it: the old token stays valid for an hour
ROTATED=$(curl -s $URL/api-keys/$ID/rotate -H "Authorization: Bearer $SESSION" -H 'Content-Type: application/json' \
  -d '{"overlap_s": 3600}')
NEW=$(echo "$ROTATED" | sed -E 's/.*"token":"([^"]+)".*/\1/')

# 200, both tokens work until the new one is deployed
curl -iw '\n' $URL/v1/chat/completions -H "Authorization: Bearer $OLD" -H 'Content-Type: application/json' -d "$CHAT"
curl -iw '\n' $URL/v1/chat/completions -H "Authorization: Bearer $NEW" -H 'Content-Type: application/json' -d "$CHAT"

# the secrets of the key, and when each was last used, which is written every two seconds
sleep 3
curl -sw '\n' $URL/api-keys/$ID -H "Authorization: Bearer $SESSION"

# 200, then revoke the key while a long answer is streamed: the stream ends with an error within a second
curl -isN $URL/v1/chat/completions -H "Authorization: Bearer $NEW" -H 'Content-Type: application/json' \
  -d "$LONG_CHAT" &
sleep 2
curl -iw '\n' -X DELETE $URL/api-keys/$ID -H "Authorization: Bearer $SESSION"
wait

# 401, revoked
curl -iw '\n' $URL/v1/chat/completions -H "Authorization: Bearer $NEW" -H 'Content-Type: application/json' -d "$CHAT"
